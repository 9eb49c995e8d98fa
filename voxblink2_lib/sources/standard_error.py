"""The lock of standard error, which yt-dlp prints to and inspects."""

from __future__ import annotations

import threading

# yt-dlp's parser prints to standard error, and its downloader inspects standard error when it is
# made. Standard error is shared by all threads, so only one of these may run at a time.
STANDARD_ERROR = threading.RLock()
