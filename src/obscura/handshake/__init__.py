"""What two nodes tell each other before traffic: versions, features, padding (specification, Handshake Process)."""
