"""One page of a run that a person looks at: report.html, a single file that opens without a network."""
