"""What is known of each car: one history, whichever boxes and plugins have told of it."""
