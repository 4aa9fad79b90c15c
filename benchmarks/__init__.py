"""Speed and memory next to a plain PyTorch port; an extra that the package never imports."""
