"""One model behind HTTP, for clients of the OpenAI protocol.

trimodal serve runs/demo/model
"""
