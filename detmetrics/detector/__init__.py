"""The bundled baseline detector; the only room that may import torch."""
