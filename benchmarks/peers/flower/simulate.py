"""Run the app by Flower's own simulation (Ray), with Flower's own choice of resources."""

from client_app import app as client_app
from flwr.simulation import run_simulation
from server_app import app as server_app
from task import load_job

if __name__ == "__main__":
    run_simulation(server_app, client_app, num_supernodes=load_job().silos)
