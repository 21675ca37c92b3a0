import Foundation
import Processes
import Testing
import UI
@testable import quarterdeck

extension Integration {
    /// The proxy between real etcd members, with members made of plain sockets.
    @Suite(.serialized) struct LinkProxyTests {}
}

/// A TCP connection as a program sees it.
private final class TestSocket {
    private let descriptor: Int32
    private init(_ descriptor: Int32) { self.descriptor = descriptor }
    deinit { close(descriptor) }

    private static func make() -> Int32 { socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0) }

    private static func withAddress(_ port: Int, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Int32) -> Int32 {
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = in_port_t(UInt16(port).bigEndian)
        address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
        return withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, socklen_t(MemoryLayout<sockaddr_in>.size)) }
        }
    }

    /// - Parameter from: the port it comes from; nil: any.
    static func connected(to port: Int, from: Int? = nil) throws -> TestSocket {
        let socket = TestSocket(make())
        if let from {
            var reuse: Int32 = 1
            setsockopt(socket.descriptor, SOL_SOCKET, SO_REUSEADDR, &reuse, socklen_t(MemoryLayout<Int32>.size))
            guard withAddress(from, { bind(socket.descriptor, $0, $1) }) == 0 else { throw Late(description: "bind: \(String(cString: strerror(errno)))") }
        }
        guard withAddress(port, { connect(socket.descriptor, $0, $1) }) == 0 else { throw Late(description: "connect: \(String(cString: strerror(errno)))") }
        return socket
    }

    static func listening(on port: Int) throws -> TestSocket {
        let socket = TestSocket(make())
        var reuse: Int32 = 1
        setsockopt(socket.descriptor, SOL_SOCKET, SO_REUSEADDR, &reuse, socklen_t(MemoryLayout<Int32>.size))
        guard withAddress(port, { bind(socket.descriptor, $0, $1) }) == 0, listen(socket.descriptor, 16) == 0 else { throw Late(description: "listen: \(errno)") }
        return socket
    }

    func isReadable(milliseconds: Int32) -> Bool {
        var polled = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        return poll(&polled, 1, milliseconds) == 1
    }

    func accepted(milliseconds: Int32 = 5_000) -> TestSocket? {
        isReadable(milliseconds: milliseconds) ? TestSocket(accept(descriptor, nil, nil)) : nil
    }

    func send(_ text: String) {
        let bytes = Array(text.utf8)
        var offset = 0
        while offset < bytes.count {
            let n = bytes.withUnsafeBytes { Glibc.send(descriptor, $0.baseAddress! + offset, bytes.count - offset, Int32(MSG_NOSIGNAL)) }
            guard n > 0 else { return }
            offset += n
        }
    }

    /// What arrives until this much is there or nothing came for so long. nil: the connection has ended.
    func received(_ count: Int, milliseconds: Int32 = 5_000) -> String? {
        var bytes: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 4096)
        while bytes.count < count, isReadable(milliseconds: milliseconds) {
            let n = recv(descriptor, &buffer, min(buffer.count, count - bytes.count), 0)
            guard n > 0 else { return nil }
            bytes += buffer[..<n]
        }
        return String(decoding: bytes, as: UTF8.self)
    }

    /// True once the other end has closed or reset it.
    /// Nothing more will be sent.
    func shutDown() { _ = Glibc.shutdown(descriptor, Int32(SHUT_WR)) }

    func hasEnded(milliseconds: Int32 = 5_000) -> Bool {
        var byte: UInt8 = 0
        return isReadable(milliseconds: milliseconds) && recv(descriptor, &byte, 1, 0) <= 0
    }
}

/// Two members, 1 and 2, that reach each other through a proxy.
private final class ProxiedPair {
    let proxy: LinkProxy
    let ports: [Int]
    let second: TestSocket

    init(owner: @escaping @Sendable (Int, Int) -> UInt64? = { _, _ in nil }) async throws {
        ports = try Ports.free(4)
        second = try TestSocket.listening(on: ports[3])
        proxy = LinkProxy([.init(node: 1, port: ports[0], memberPort: ports[1]), .init(node: 2, port: ports[2], memberPort: ports[3])], owner: owner)
        try await proxy.start()
    }

    func obey(_ faults: Fault...) async { await proxy.obey(FaultBoard.plan(of: faults, nodes: [1, 2])) }

    static let stream = "GET /raft/stream/message/1 HTTP/1.1\r\nHost: x\r\nX-Server-From: 1\r\n\r\n"
    static let post = "POST /raft HTTP/1.1\r\nHost: x\r\nX-Server-From: 1\r\nContent-Length: 4\r\n\r\nbody"
    static let probe = "GET /raft/probing HTTP/1.1\r\nHost: x\r\n\r\n"

    /// 1 asks 2.
    func ask(_ request: String) throws -> TestSocket {
        let socket = try TestSocket.connected(to: ports[2])
        socket.send(request)
        return socket
    }
}

extension Integration.LinkProxyTests {
    /// Not long, but long for this machine's loopback.
    private static let silence: Int32 = 300

    @Test func aStreamCarriesMessagesOfTheOneThatAnswers() async throws {
        let pair = try await ProxiedPair()
        let reader = try pair.ask(ProxiedPair.stream)
        let writer = try #require(pair.second.accepted())
        #expect(writer.received(ProxiedPair.stream.utf8.count) == ProxiedPair.stream)
        writer.send("one")
        #expect(reader.received(3) == "one")
        // The other direction does not matter, and a new stream comes about.
        await pair.obey(.cut(from: 1, to: 2))
        writer.send("two")
        #expect(reader.received(3) == "two")
        let other = try pair.ask(ProxiedPair.stream)
        let otherWriter = try #require(pair.second.accepted())
        #expect(otherWriter.received(ProxiedPair.stream.utf8.count) == ProxiedPair.stream)
        otherWriter.send("new")
        #expect(other.received(3) == "new")
        // Its own direction does; the sender does not notice.
        await pair.obey(.cut(from: 2, to: 1))
        writer.send("lost")
        #expect(!reader.isReadable(milliseconds: Self.silence))
        // Healed: what lost bytes is reset, what lost none goes on.
        await pair.obey()
        #expect(reader.hasEnded() && writer.hasEnded())
        otherWriter.send("on")
        #expect(other.received(2) == "on")
        await pair.proxy.stop()
    }

    @Test func aPostCarriesMessagesOfTheOneThatAsks() async throws {
        let pair = try await ProxiedPair()
        await pair.obey(.cut(from: 2, to: 1))
        let poster = try pair.ask(ProxiedPair.post)
        let receiver = try #require(pair.second.accepted())
        #expect(receiver.received(ProxiedPair.post.utf8.count) == ProxiedPair.post)
        receiver.send("204")
        #expect(poster.received(3) == "204")
        await pair.obey(.cut(from: 1, to: 2))
        poster.send(ProxiedPair.post)
        #expect(!receiver.isReadable(milliseconds: Self.silence))
        // Nor does a connection come about.
        let other = try pair.ask(ProxiedPair.post)
        #expect(pair.second.accepted(milliseconds: Self.silence) == nil)
        await pair.obey()
        #expect(poster.hasEnded() && receiver.hasEnded() && other.hasEnded())
        await pair.proxy.stop()
    }

    @Test func aQuestionNeedsBothDirectionsAndItsAskerIsFoundOut() async throws {
        let pair = try await ProxiedPair(owner: { _, _ in 1 })
        for fault in [Fault.cut(from: 1, to: 2), .cut(from: 2, to: 1)] {
            await pair.obey()
            let asking = try pair.ask(ProxiedPair.probe)
            let answering = try #require(pair.second.accepted())
            #expect(answering.received(ProxiedPair.probe.utf8.count) == ProxiedPair.probe)
            await pair.obey(fault)
            asking.send(ProxiedPair.probe)
            answering.send("200")
            let heard = (answering.isReadable(milliseconds: Self.silence), asking.isReadable(milliseconds: Self.silence))
            #expect(heard == (fault == .cut(from: 2, to: 1), fault == .cut(from: 1, to: 2)))
        }
        await pair.proxy.stop()
    }

    @Test func theSystemTellsWhoseAConnectionIs() throws {
        let port = try Ports.free()[0]
        let listener = try TestSocket.listening(on: port)
        let scratch = try Scratch()
        let child = try ChildProcess(["/bin/bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/\(port); cat <&3"], in: scratch)
        let connection = try #require(listener.accepted())
        let from = connection.peerPort
        // The way back is this process's own.
        #expect(SocketOwner.find(from, port, among: [7: getpid(), 8: child.pid]) == 8)
        #expect(SocketOwner.find(port, from, among: [7: getpid(), 8: child.pid]) == 7)
        #expect(SocketOwner.find(from, port, among: [7: getpid()]) == nil)
        #expect(SocketOwner.find(1, port, among: [7: getpid(), 8: child.pid]) == nil)
    }

    /// One that is over stands in the system's table for a minute, without an owner.
    @Test func aConnectionFromAPortThatWasUsedBeforeIsTold() throws {
        let ports = try Ports.free(10)
        let first = try TestSocket.listening(on: ports[0]), second = try TestSocket.listening(on: ports[1])
        for from in ports[2...] {
            do {
                // Who closes first is left with the rest of the connection.
                let over = try TestSocket.connected(to: ports[0], from: from)
                let other = try #require(first.accepted())
                over.shutDown()
                #expect(other.hasEnded())
            }
            let present = try TestSocket.connected(to: ports[1], from: from)
            let other = try #require(second.accepted())
            #expect(SocketOwner.find(from, ports[1], among: [7: getpid()]) == 7)
            #expect(SocketOwner.find(from, ports[0], among: [7: getpid()]) == nil)
            withExtendedLifetime((present, other)) {}
        }
    }

    @Test func aDelayIsThatOfTheDirection() async throws {
        let pair = try await ProxiedPair()
        await pair.obey(.wire(from: 2, to: 1, WireFault(delayMilliseconds: 150)))
        let reader = try pair.ask(ProxiedPair.stream)
        let writer = try #require(pair.second.accepted())
        _ = writer.received(ProxiedPair.stream.utf8.count)
        for _ in 1...3 {
            let start = ContinuousClock.now
            writer.send("late")
            #expect(reader.received(4) == "late")
            #expect(ContinuousClock.now - start >= .milliseconds(149))
        }
        // What is on its way comes at once when the link is sound again.
        await pair.obey(.wire(from: 2, to: 1, WireFault(delayMilliseconds: 600_000)))
        writer.send("held")
        #expect(!reader.isReadable(milliseconds: Self.silence))
        await pair.obey()
        #expect(reader.received(4) == "held")
        await pair.proxy.stop()
    }

    @Test func aSlowLineAndLossKeepEveryByteInOrder() async throws {
        let pair = try await ProxiedPair()
        let reader = try pair.ask(ProxiedPair.stream)
        let writer = try #require(pair.second.accepted())
        _ = writer.received(ProxiedPair.stream.utf8.count)
        let text = (0..<2_000).map { "\($0)," }.joined()
        await pair.obey(.wire(from: 2, to: 1, WireFault(bytesPerSecond: 20_000)))
        var start = ContinuousClock.now
        writer.send(text)
        #expect(reader.received(text.utf8.count) == text)
        #expect(ContinuousClock.now - start >= .milliseconds(text.utf8.count * 1_000 / 20_000 - 60))
        await pair.obey(.wire(from: 2, to: 1, WireFault(jitterMilliseconds: 5, lossPercent: 30)))
        start = .now
        for number in 0..<20 {
            writer.send("\(number % 10)")
            try await Task.sleep(for: .milliseconds(2)) // pieces of their own
        }
        #expect(reader.received(20, milliseconds: 20_000) == "01234567890123456789")
        await pair.proxy.stop()
    }

    @Test func aMemberThatIsNotThereRefuses() async throws {
        let pair = try await ProxiedPair()
        let asking = try TestSocket.connected(to: pair.ports[0])
        asking.send("GET /raft/stream/message/2 HTTP/1.1\r\nX-Server-From: 2\r\n\r\n")
        #expect(asking.hasEnded())
        try await eventually("the end of the connection") { await pair.proxy.connectionCount() == 0 }
        await pair.proxy.stop()
    }
}

extension TestSocket {
    fileprivate var peerPort: Int {
        var address = sockaddr_in()
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        _ = withUnsafeMutablePointer(to: &address) { $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { getpeername(descriptor, $0, &length) } }
        return Int(UInt16(bigEndian: address.sin_port))
    }
}
