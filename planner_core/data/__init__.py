"""What flows through a tick: frozen values, with no behaviour beyond their own checks."""
