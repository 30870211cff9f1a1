"""Training of the learnt tokenizers and of the vocoder."""
