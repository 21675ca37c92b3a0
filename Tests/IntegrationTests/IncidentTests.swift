import Base
import Client
import Foundation
import Testing

extension Integration {
    /// Incidents of other clusters that only processes show. (docs/incidents.md)
    @Suite(.serialized) struct IncidentTests {}
}

extension Integration.IncidentTests {
    /// Incident 48: nobody takes the log. Everything else goes on.
    @Test func aLogThatNobodyTakesStopsNothing() async throws {
        let scratch = try Scratch()
        let pipe = scratch.file("log")
        try #require(mkfifo(pipe, 0o600) == 0)
        let reader = open(pipe, O_RDWR | O_NONBLOCK)
        try #require(reader >= 0)
        defer { close(reader) }
        // Full from the start.
        let filler = [UInt8](repeating: 32, count: 4096)
        while filler.withUnsafeBytes({ write(reader, $0.baseAddress, $0.count) }) > 0 {}
        let ports = try Ports.free(2)
        let node = ServeNode(name: "n1", clientPort: ports[0], peerPort: ports[1], initialCluster: "n1=http://127.0.0.1:\(ports[1])", extra: ["--log-level", "debug"], in: scratch)
        let process = try ChildProcess(["/bin/sh", "-c", "pipe=$0; exec \"$@\" 2>\"$pipe\"", pipe, quarterdeck] + node.arguments, in: scratch)
        let client = try EtcdClient(configuration: ClientConfiguration(endpoints: [node.endpoint]))
        try await eventually("a first write") { (try? await client.put("k", "v", options: CallOptions(timeout: .seconds(2)))) != nil }
        for number in 0..<50 { _ = try await client.put("k\(number)", "v", options: CallOptions(timeout: .seconds(5))) }
        #expect(try await client.get("k7", options: CallOptions(timeout: .seconds(5)))?.value == Array("v".utf8))
        await client.close()
        // It also ends although nobody takes its last words.
        process.signal(SIGTERM)
        #expect(try await process.exit(seconds: 20) == 0)
    }

    /// Incident 22: clients that read all there is, over and over, do not keep the events of a watch on the same connection.
    @Test func bulkReadsDoNotHoldUpAWatchOnTheirConnection() async throws {
        let scratch = try Scratch()
        let cluster = try ServeCluster(1, in: scratch)
        do {
            try await cluster.waitForLeader()
            let client = cluster.client
            let value = [UInt8](repeating: 7, count: 1 << 20)
            for number in 0..<8 { _ = try await client.put(Array("bulk/\(number)".utf8), value) }
            let watch = client.watch(WatchQuery(.single(Key("tick"))))
            let reads = Counter(), stop = Counter()
            var delays: [Duration] = []
            try await withThrowingTaskGroup(of: Void.self) { group in
                for _ in 0..<12 {
                    group.addTask {
                        while stop.value == 0 {
                            _ = try await client.range(RangeQuery(.prefix(Key("bulk/"))), options: CallOptions(timeout: .seconds(60)))
                            _ = reads.increment()
                        }
                    }
                }
                defer { _ = stop.increment() }
                var events = watch.makeAsyncIterator()
                try await eventually("bulk reads") { reads.value > 12 }
                for number in 0..<20 {
                    let start = ContinuousClock.now
                    _ = try await client.put(Array("tick".utf8), Array("\(number)".utf8), options: CallOptions(timeout: .seconds(60)))
                    _ = try await events.next()
                    delays.append(start.duration(to: .now))
                }
                _ = stop.increment()
                try await group.waitForAll()
            }
            delays.sort()
            print("put and event beside bulk reads: median \(delays[10]), worst \(delays[19]); \(reads.value) reads of 8 MiB")
            #expect(delays[10] < .seconds(1) && delays[19] < .seconds(5), "\(delays)")
            await cluster.end()
        } catch {
            await cluster.end()
            throw error
        }
    }
}
