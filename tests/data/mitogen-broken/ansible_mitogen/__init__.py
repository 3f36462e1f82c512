raise ImportError("a name of Ansible is gone")
