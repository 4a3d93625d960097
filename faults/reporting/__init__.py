"""What is made of a judged history: figures, a text for the terminal, a page with a picture."""
