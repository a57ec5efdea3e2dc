"""Moving pictures in and out: video files and folders of frames, a frame at a time. Needs the extra ``video``."""
