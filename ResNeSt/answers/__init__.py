"""Images and a model -> an answer an image, in this process or as work for other machines."""
