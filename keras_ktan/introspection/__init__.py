"""What a model looks like inside: its layers, maps and outputs."""
