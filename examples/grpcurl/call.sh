# Defines call SERVICE/METHOD JSON [HOST:PORT], on grpcurl or on buf (GRPCURL=buf, or its path). The server describes its
# own contract, so neither needs the .proto files.
call() {
    method="abstractllm_api.v1.$1"
    address="${3:-127.0.0.1:50051}"
    case "${GRPCURL:=grpcurl}" in
    *buf) "$GRPCURL" curl --protocol grpc --http2-prior-knowledge --data "$2" "http://$address/$method" ;;
    *) "$GRPCURL" -plaintext -d "$2" "$address" "$method" ;;
    esac
}
