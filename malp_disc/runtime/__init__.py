"""What the networks and trainings stand on: memory, precision, random numbers, copies, freezing, checks of values, threads and transfers. Nothing here knows MaLP."""
