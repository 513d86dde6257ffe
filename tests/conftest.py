"""What holds for every test."""

import signal

# A suite that a script started in the background inherits "ignore" for SIGINT and would hand it on to every process that a
# test interrupts; with a handler of our own they begin with the default.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
