// The living diagram: counts on the states of the drawing.
