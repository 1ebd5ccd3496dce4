"""Work for the processes of many machines: plain Ray tasks, a chunk of images each, taken in order."""
