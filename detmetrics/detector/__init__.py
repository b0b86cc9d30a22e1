"""The bundled baseline detector: point pillars and centre heatmaps in torch; the only room that imports it."""
