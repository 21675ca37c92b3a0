import Base

/// The limits of a node's client side, each with the reason for its default.
public struct ClientBounds: Sendable {
    /// Connections of one listener; a further one is closed at once. `DescriptorLimit` may allow fewer.
    public var maxConnections = 10_000
    /// Calls that one connection may have open: HTTP/2 refuses more, so it also bounds outstanding requests. Real clients
    /// stay below 1,000; a call costs about 500 bytes.
    public var maxConcurrentStreams: UInt32 = ClientBounds.mostConcurrentStreams
    public static let mostConcurrentStreams: UInt32 = 16_384
    /// Answers that wait for the client to read them, per connection. Above this, granted reads are put off and asked again
    /// once half of it has left, so that many large ranges do not pile up. Reading from the socket goes on: HTTP/2 needs the
    /// client's window updates to make room.
    public var maxBufferedResponseBytes = 64 << 20
    /// The same over all connections of a listener; about eight listings of everything. Above it reads of ranges wait until half is free.
    public var maxTotalResponseBytes = 512 << 20
    /// Time after which a read that waits for that is refused.
    public var maxWaitForRoom: TimeSpan = .seconds(60)
    /// Request messages that have arrived in part, per connection. A client beyond it is not one of etcd's: it is cut off.
    public var maxPartialRequestBytes = 64 << 20
    /// The same over all connections of a listener. Above it the one that brings more is cut off, if it holds `fairPartialRequestBytes`.
    public var maxTotalPartialRequestBytes = 512 << 20
    public var fairPartialRequestBytes = 2 << 20
    /// Time in which a request must arrive once it has begun, and, while answers have no room, in which a client must take some. Coarse.
    public var stuckTimeout: TimeSpan = .seconds(300)
    /// Bytes that wait for one client from which on it may be holding up others, and what it must take in a quarter of that time.
    public var stuckAnswerBytes = 1 << 20
    public var leastTakenBytes = 64 << 10
    /// Time that a connection has to take the rest when it is closed.
    public var farewellTimeout: TimeSpan = .seconds(30)
    public var keepAlive = KeepAliveOptions()
    /// Bytes added to `maxRequestBytes` for the largest gRPC message accepted. (etcd)
    public var requestOverheadBytes = 512 << 10
    /// The largest answer: grpc-go's limit for sending.
    public var maxResponseBytes = Int(Int32.max)
    /// Renewals of one keep-alive stream that are with the member at once.
    public var maxRunningKeepAlives = 1_024
    /// Renewals of one keep-alive stream that wait for their turn; more ends the stream.
    public var maxWaitingKeepAlives = 65_536
    /// Events of a member that wait for one observer; older ones are dropped then, and counted. Some tens of elections.
    public var maxWaitingObserverEvents = 1_024
    /// Bytes of an Observe stream that HTTP/2 has not taken; above it events wait, and states replace each other.
    public var maxBufferedObserverBytes = 64 << 10
    /// Bytes of a snapshot's stream that HTTP/2 has not taken; the next piece is read when half of it has left.
    public var maxBufferedSnapshotBytes = 1 << 20
    /// Bytes gathered for one write to the socket.
    public var writeChunkBytes = 256 << 10
    /// Time in which a new connection must show which protocol it speaks, with HTTP/2 up to the client's settings.
    public var sniffTimeout: TimeSpan = .seconds(10)
    /// Time in which an HTTP/1.1 connection must bring its next request. (etcd's ReadHeaderTimeout)
    public var httpIdleTimeout: TimeSpan = .seconds(300)
    /// Requests to HTTP endpoints that one HTTP/2 connection may have open: one more is refused, and may be tried again. A call of the gateway costs
    /// some 50 KiB; Go's servers have the same number.
    public var maxHTTPStreams = 250
    /// Head of an HTTP/1.1 request, in bytes.
    public var maxHTTPHeadBytes = 64 << 10
    /// Body of a request to an HTTP endpoint that does not read it, in bytes.
    public var maxHTTPBodyBytes = 64 << 10

    public init() {}
}
