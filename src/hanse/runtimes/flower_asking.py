"""The program that a SuperNode starts for each message: it asks the nursery to fork a ClientApp."""

PROGRAM = "flwr-clientapp"
NURSERY = "HANSE_NURSERY"  # in the environment: the path of the nursery's socket

# As little of Python as possible, since it runs for every message of every silo.
ASK = """import json, os, socket, sys
try:
    line = socket.socket(socket.AF_UNIX)
    line.connect(os.environ["HANSE_NURSERY"])
except (OSError, KeyError):
    os.execv(sys.executable, [sys.executable, "-m", "{program}", "{name}", *sys.argv[1:]])
line.sendall(json.dumps(sys.argv[1:]).encode())
line.shutdown(socket.SHUT_WR)
line.recv(1)
"""
