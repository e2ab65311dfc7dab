"""What a run shows and leaves: console lines, figures, TensorBoard, metrics.json."""
