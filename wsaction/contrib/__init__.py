"""What joins wsaction to other libraries: one module for each, which needs that library installed."""
