"""How long the chart takes to render."""
