import NIOCore
import NIOPosix
import UI

/// The few facts that real etcd tells only in /metrics.
enum MetricsProbe {
    /// A page is about 100 KB; more than this is not one.
    private static let limitBytes = 4 << 20
    private static let timeout = TimeAmount.seconds(2)

    /// The text of `http://host:port/metrics`; nil for anything but a good answer in time.
    static func fetch(host: String, port: Int) async -> String? {
        let loop = MultiThreadedEventLoopGroup.singleton.next()
        let promise = loop.makePromise(of: String?.self)
        let request = "GET /metrics HTTP/1.0\r\nHost: \(host):\(port)\r\nAccept: text/plain\r\n\r\n"
        let connected = ClientBootstrap(group: loop).connectTimeout(timeout).channelInitializer { channel in
            channel.eventLoop.makeCompletedFuture { try channel.pipeline.syncOperations.addHandler(Collector(request: request, promise: promise)) }
        }.connect(host: host, port: port)
        connected.whenFailure { _ in promise.succeed(nil) }
        connected.whenSuccess { channel in channel.eventLoop.scheduleTask(in: timeout) { channel.close(promise: nil) } }
        return try? await promise.futureResult.get()
    }

    /// Asks once and collects up to the end of the connection.
    private final class Collector: ChannelInboundHandler {
        typealias InboundIn = ByteBuffer
        typealias OutboundOut = ByteBuffer
        private let request: String
        private let promise: EventLoopPromise<String?>
        private var received = ByteBuffer()
        private var isOver = false

        init(request: String, promise: EventLoopPromise<String?>) {
            self.request = request
            self.promise = promise
        }

        func channelActive(context: ChannelHandlerContext) {
            context.writeAndFlush(wrapOutboundOut(context.channel.allocator.buffer(string: request)), promise: nil)
        }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            var buffer = unwrapInboundIn(data)
            received.writeBuffer(&buffer)
            if received.readableBytes > limitBytes { context.close(promise: nil) }
        }

        func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }

        func channelInactive(context: ChannelHandlerContext) {
            guard !isOver else { return }
            isOver = true
            let text = String(buffer: received)
            let isGood = text.hasPrefix("HTTP/1.") && text.dropFirst(8).prefix(5).contains("200")
            promise.succeed(isGood && received.readableBytes <= limitBytes ? text : nil)
        }
    }

    struct Metrics {
        var fsyncP99Microseconds: Int?
        var startedAt: Moment?

        /// Reads Prometheus text.
        init(_ text: String) {
            var buckets: [(upTo: Double, count: Double)] = []
            for line in text.split(separator: "\n") where !line.hasPrefix("#") {
                guard let blank = line.lastIndex(of: " "), let value = Double(line[line.index(after: blank)...]), value.isFinite else { continue }
                let name = line[..<blank]
                if name.hasPrefix("etcd_disk_wal_fsync_duration_seconds_bucket{le=\"") {
                    let bound = name.split(separator: "\"").dropFirst().first ?? ""
                    buckets.append((Double(bound).flatMap { $0.isNaN ? nil : $0 } ?? .infinity, value))
                } else if name == "process_start_time_seconds" {
                    startedAt = Moment(milliseconds: Int64(Bounds.count(value)) * 1_000 + Int64(value.truncatingRemainder(dividingBy: 1) * 1_000)).bounded
                }
            }
            fsyncP99Microseconds = Metrics.percentile(0.99, buckets).map { Bounds.count($0 * 1e6) }
        }

        /// Of a cumulative histogram, interpolated inside the bucket as Prometheus does. nil when nothing was counted.
        static func percentile(_ part: Double, _ buckets: [(upTo: Double, count: Double)]) -> Double? {
            let sorted = buckets.sorted { $0.upTo < $1.upTo }
            guard let total = sorted.last?.count, total > 0 else { return nil }
            let wanted = total * part
            var lower = 0.0, before = 0.0
            for bucket in sorted {
                if bucket.count >= wanted {
                    guard bucket.upTo.isFinite else { return lower }
                    return lower + (bucket.upTo - lower) * (wanted - before) / max(1, bucket.count - before)
                }
                (lower, before) = (bucket.upTo, bucket.count)
            }
            return lower
        }
    }
}
