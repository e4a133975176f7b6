"""What a prompt holds: images, what the vision tower made of them, the question, the rows that rank."""
