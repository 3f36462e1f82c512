"""What touches this computer, once each: processes, SSH, waiting, files, locks. Used by adapters and the engine."""
