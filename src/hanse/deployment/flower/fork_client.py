"""How Flower's programs start each other in milliseconds: they ask the nursery to fork.

In the folder of names that they are given (see flower_home), such a name leads to this small
program, which hands its words, and where its output goes, to the nursery. It waits for the end of
what it started, and ends as that did, if it is a command; all else goes on alone.
"""

NURSERY = "HANSE_NURSERY"  # in the environment: the path of the nursery's socket
COMMAND = "flwr"  # the one that ends by itself and whose output is read

# As little of Python as possible, since it runs for every message of every silo.
ASK = """import json, os, socket, sys
try:
    line = socket.socket(socket.AF_UNIX)
    line.connect(os.environ["HANSE_NURSERY"])
except (OSError, KeyError):
    os.execv(sys.executable, [sys.executable, "-m", "{program}", *sys.argv[1:]])
socket.send_fds(line, [b"w"], [0, 1, 2])
line.sendall(json.dumps(sys.argv[1:]).encode())
line.shutdown(socket.SHUT_WR)
end = line.recv(1)
sys.exit(end[0] if end else sys.argv[1] == "{command}")
"""
