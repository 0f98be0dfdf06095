// Server and client of grpc-go. Arguments: `server ADDRESS`, or `client ADDRESS AUTHORITIES`, where "-" is a connection
// without TLS. Messages are bytes as they are. The client says as JSON what came.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

const patience = 30 * time.Second

// Bytes as they are.
type raw struct{}

func (raw) Marshal(v interface{}) ([]byte, error) { return *v.(*[]byte), nil }
func (raw) Unmarshal(data []byte, v interface{}) error {
	*v.(*[]byte) = append([]byte(nil), data...)
	return nil
}
func (raw) Name() string   { return "raw" }
func (raw) String() string { return "raw" }

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func send(stream grpc.Stream, text string) error {
	bytes := []byte(text)
	return stream.SendMsg(&bytes)
}

func receive(stream grpc.Stream) (string, error) {
	var bytes []byte
	err := stream.RecvMsg(&bytes)
	return string(bytes), err
}

func serve(_ interface{}, stream grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(stream)
	given, _ := metadata.FromIncomingContext(stream.Context())
	own := metadata.MD{"x-given": given["x-given"], "x-given-bin": given["x-given-bin"]}
	stream.SetTrailer(own)
	messages, bytes := 0, 0
	for {
		message, err := receive(stream)
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		messages++
		bytes += len(message)
		switch method[strings.LastIndex(method, "/")+1:] {
		case "Unary":
			check(stream.SetHeader(own))
			return send(stream, message)
		case "Fail":
			return status.Error(codes.NotFound, message)
		case "Wait":
			<-stream.Context().Done()
			return status.FromContextError(stream.Context().Err()).Err()
		case "Count":
			count, _ := strconv.Atoi(message)
			for number := 0; number < count; number++ {
				if err := send(stream, fmt.Sprintf("%010d", number)); err != nil {
					return err
				}
			}
			return nil
		case "Chat":
			if err := send(stream, message); err != nil {
				return err
			}
		}
	}
	return send(stream, fmt.Sprintf("%d %d", messages, bytes))
}

// A call of this method; with what ends it.
func call(connection *grpc.ClientConn, method string, limit time.Duration) (grpc.ClientStream, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	ctx = metadata.AppendToOutgoingContext(ctx, "x-given", "one", "x-given", "two", "x-given-bin", "\x00\xff")
	kind := &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}
	stream, err := connection.NewStream(ctx, kind, "/test.Calls/"+method, grpc.ForceCodec(raw{}))
	check(err)
	return stream, cancel
}

// The answers to a call of one message; the code by which it has ended, and its metadata in front and behind.
func ask(connection *grpc.ClientConn, method, message string, limit time.Duration) ([]string, codes.Code, []metadata.MD) {
	stream, cancel := call(connection, method, limit)
	defer cancel()
	check(send(stream, message))
	check(stream.CloseSend())
	answers := []string{}
	for {
		answer, err := receive(stream)
		if err != nil {
			head, _ := stream.Header()
			if err == io.EOF {
				err = nil
			}
			return answers, status.Code(err), []metadata.MD{head, stream.Trailer()}
		}
		answers = append(answers, answer)
	}
}

// Sends messages, and reads an answer behind each, or one behind all.
func talk(connection *grpc.ClientConn, method string, count int) []string {
	stream, cancel := call(connection, method, patience)
	defer cancel()
	answers := []string{}
	read := func() {
		answer, err := receive(stream)
		check(err)
		answers = append(answers, answer)
	}
	for number := 0; number < count; number++ {
		check(send(stream, fmt.Sprintf("%010d", number)))
		if method == "Chat" {
			read()
		}
	}
	check(stream.CloseSend())
	read()
	return answers
}

func main() {
	address := os.Args[2]
	if os.Args[1] == "server" {
		listener, err := net.Listen("tcp", address)
		check(err)
		often := keepalive.ServerParameters{Time: time.Second}
		server := grpc.NewServer(grpc.CustomCodec(raw{}), grpc.UnknownServiceHandler(serve), grpc.KeepaliveParams(often))
		check(server.Serve(listener))
	}
	security := grpc.WithInsecure()
	if os.Args[3] != "-" {
		trust, err := credentials.NewClientTLSFromFile(os.Args[3], "a.test")
		check(err)
		security = grpc.WithTransportCredentials(trust)
	}
	connection, err := grpc.Dial(address, security)
	check(err)
	unary, code, around := ask(connection, "Unary", "hello", patience)
	failed, failure, trailers := ask(connection, "Fail", "none", patience)
	_, late, _ := ask(connection, "Wait", "", 500*time.Millisecond)
	// Each message that comes is measured by a ping, for as long as none is on its way.
	counted, _, _ := ask(connection, "Count", "100000", patience)
	said := map[string]interface{}{
		"unary": unary, "code": code.String(), "head": around[0]["x-given"], "behind": around[1]["x-given"],
		"bytes":  fmt.Sprintf("%x", strings.Join(around[1]["x-given-bin"], "")),
		"failed": failed, "failure": failure.String(), "trailers": trailers[1]["x-given"], "late": late.String(),
		"counted": len(counted), "last": counted[len(counted)-1],
		"chatted": len(talk(connection, "Chat", 3000)), "collected": talk(connection, "Collect", 100000),
	}
	after, _, _ := ask(connection, "Unary", "after", patience)
	said["after"] = after
	check(json.NewEncoder(os.Stdout).Encode(said))
}
