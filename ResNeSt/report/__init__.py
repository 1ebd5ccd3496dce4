"""One page of a run that a person looks at: report.html, a single file that opens without a network.

`collect` turns scores into a Report, `data` keeps it as report.json, `plots`, `thumbnails` and `page` draw it.
"""
