# Certificates and kubeconfig files.
# shellcheck shell=bash

PKI=$DIR/pki
EC=(-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes)

# certificate NAME SUBJECT [ALTERNATIVE NAMES]
certificate() {
  openssl req -new "${EC[@]}" -keyout "$PKI/$1.key" -subj "$2" 2>/dev/null |
    openssl x509 -req -CA "$PKI/ca.crt" -CAkey "$PKI/ca.key" -set_serial "0x$(openssl rand -hex 8)" -days 3650 \
      -extfile <(printf 'extendedKeyUsage=serverAuth,clientAuth\n%s\n' "${3:+subjectAltName=$3}") \
      -out "$PKI/$1.crt" 2>/dev/null
}

# kubeconfig NAME FILE: for the certificate NAME; holds everything it needs.
kubeconfig() {
  (umask 077 && cat >"$2") <<TEXT
apiVersion: v1
kind: Config
current-context: $CLUSTER_NAME
contexts:
- name: $CLUSTER_NAME
  context: {cluster: $CLUSTER_NAME, user: $1}
clusters:
- name: $CLUSTER_NAME
  cluster:
    server: $API
    certificate-authority-data: $(base64 -w0 "$PKI/ca.crt")
users:
- name: $1
  user:
    client-certificate-data: $(base64 -w0 "$PKI/$1.crt")
    client-key-data: $(base64 -w0 "$PKI/$1.key")
TEXT
}

make_pki() {
  local node name
  (umask 077 && mkdir -p "$PKI")
  openssl req -x509 "${EC[@]}" -keyout "$PKI/ca.key" -out "$PKI/ca.crt" -subj /CN=scriptscope-test -days 3650 2>/dev/null
  openssl ecparam -genkey -name prime256v1 -noout -out "$PKI/sa.key"
  openssl ec -in "$PKI/sa.key" -pubout -out "$PKI/sa.pub" 2>/dev/null
  certificate apiserver /CN=kube-apiserver "DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local,DNS:localhost,IP:127.0.0.1,IP:$CONTROL_IP,IP:$SERVICE_IP"
  certificate kubelet-client /O=system:masters/CN=apiserver-kubelet-client
  certificate admin /O=system:masters/CN=admin
  certificate coredns /O=system:masters/CN=coredns
  certificate kube-controller-manager /CN=system:kube-controller-manager
  certificate kube-scheduler /CN=system:kube-scheduler
  certificate kube-proxy /CN=system:kube-proxy
  for name in coredns kube-controller-manager kube-scheduler kube-proxy; do kubeconfig "$name" "$PKI/$name.conf"; done
  for ((node = 0; node < NODES; node++)); do
    certificate "node$node" "/O=system:nodes/CN=system:node:node$node" "DNS:node$node,IP:$(node_ip "$node")"
    kubeconfig "node$node" "$PKI/node$node.conf"
  done
  kubeconfig admin "$KUBECONFIG_FILE"
}
