"""What holds for every test."""

import signal

# Where tests run in the background of a script, the shell has Ctrl+C ignored, for them and for every process that they
# start; some of these are to be stopped by it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
