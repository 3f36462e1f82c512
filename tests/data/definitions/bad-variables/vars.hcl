cores = 4
