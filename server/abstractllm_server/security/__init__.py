"""Who may call: tokens, certificates, roles."""
