FROM no-such-image-here:1
