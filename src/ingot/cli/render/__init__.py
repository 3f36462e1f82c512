"""Events, values and errors as text. Only this package knows what a screen looks like; all of it but the sinks is pure."""
