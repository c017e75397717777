"""The Docker API on this computer: a socket whose connections are channels to the engine, watched on their way."""
