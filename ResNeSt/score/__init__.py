"""From outputs and labels to top-1 and top-5: ResNeSt_postprocess.py."""
