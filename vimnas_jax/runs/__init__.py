"""What every long run needs: its step and state, the loop, the folder, checkpoints, metrics, signals, devices."""
