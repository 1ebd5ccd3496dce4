"""The bundled demo: handwritten digits as photographs, and the small ResNeSt trained on them."""
