"""Models, images and commands that several tests share."""
