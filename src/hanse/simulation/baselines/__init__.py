"""Does federation pay? Each silo alone, federated and centralised training beside each other."""
