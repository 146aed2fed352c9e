"""The services, one module each; `contract` lists those of the contract."""
