package rawconn

// Setcap is the command that gives an agent its capabilities. It names all of
// them wherever one is missing, since setcap replaces those that the file has.
const Setcap = "sudo setcap cap_net_raw,cap_net_admin,cap_bpf+ep agent"
