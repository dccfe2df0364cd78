module cancel-tree/benches

go 1.21
