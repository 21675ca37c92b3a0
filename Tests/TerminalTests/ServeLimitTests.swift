import Base
import Foundation
import Server
import Testing
@testable import quarterdeck

@Suite struct ServeLimitTests {
    private func limits(_ arguments: [String], _ environment: [String: String] = [:]) throws -> ClientLimits {
        let command = try #require(ServeCommand.command(of: ["serve"] + arguments))
        return try #require(try command.options(environment: environment)).clientLimits
    }

    private func inFile(_ lines: String) throws -> ClientLimits {
        let path = NSTemporaryDirectory() + "qd-config-\(UUID().uuidString).yaml"
        try Data(lines.utf8).write(to: URL(fileURLWithPath: path))
        defer { try? FileManager.default.removeItem(atPath: path) }
        return try limits(["--config-file", path])
    }

    @Test func defaultsAreThoseOfEtcd() throws {
        let limits = try limits([])
        #expect(limits.keepAlive.minPingInterval == .seconds(5) && limits.keepAlive.interval == .seconds(7_200) && limits.keepAlive.timeout == .seconds(20))
        #expect(limits.maxConcurrentStreams == 4_294_967_295)
    }

    @Test func optionsVariablesAndFilesSayTheSame() throws {
        let expected = try limits(["--grpc-keepalive-min-time", "500ms", "--grpc-keepalive-interval=1h30m", "--grpc-keepalive-timeout", "1.5s", "--max-concurrent-streams", "7"])
        #expect(expected.keepAlive.minPingInterval == .milliseconds(500) && expected.keepAlive.interval == .seconds(5_400))
        #expect(expected.keepAlive.timeout == .milliseconds(1_500) && expected.maxConcurrentStreams == 7)
        #expect(try limits([], ["ETCD_GRPC_KEEPALIVE_MIN_TIME": "500ms", "ETCD_GRPC_KEEPALIVE_INTERVAL": "90m", "ETCD_GRPC_KEEPALIVE_TIMEOUT": "1500ms",
                                "ETCD_MAX_CONCURRENT_STREAMS": "7"]) == expected)
        #expect(try inFile("grpc-keepalive-min-time: 500ms\ngrpc-keepalive-interval: 1h30m\ngrpc-keepalive-timeout: 1.5s\nmax-concurrent-streams: 7\n") == expected)
        // etcd's files have nanoseconds.
        #expect(try inFile("grpc-keepalive-min-time: 500000000\ngrpc-keepalive-interval: 5400000000000\ngrpc-keepalive-timeout: 1500000000\nmax-concurrent-streams: 7\n") == expected)
    }

    @Test func zeroAndVeryShortMeanWhatTheyMeanToGRPC() throws {
        let none = try limits(["--grpc-keepalive-min-time", "0", "--grpc-keepalive-interval", "0s", "--grpc-keepalive-timeout", "0", "--max-concurrent-streams", "0"])
        #expect(none.keepAlive.minPingInterval == .zero && none.keepAlive.interval == .zero && none.keepAlive.timeout == .zero)
        #expect(none.maxConcurrentStreams == .max)
        #expect(try limits(["--grpc-keepalive-interval", "10ms"]).keepAlive.interval == .seconds(1))
    }

    @Test func clientsAreNeverToldMoreStreamsThanTheirMemoryIsFor() throws {
        for (asked, told) in [("0", 16_384), ("4294967295", 16_384), ("16385", 16_384), ("16384", 16_384), ("100", 100)] as [(String, UInt32)] {
            var bounds = ClientBounds()
            try limits(["--max-concurrent-streams", asked]).apply(to: &bounds)
            #expect(bounds.maxConcurrentStreams == told, "\(asked)")
        }
    }

    @Test(arguments: [
        (["--grpc-keepalive-min-time", "5"], "--grpc-keepalive-min-time 5: expected a time such as"), (["--grpc-keepalive-min-time=-5s"], "--grpc-keepalive-min-time -5s"),
        (["--grpc-keepalive-interval", "soon"], "--grpc-keepalive-interval soon"), (["--grpc-keepalive-timeout", ""], "--grpc-keepalive-timeout"),
        (["--max-concurrent-streams", "4294967296"], "0 to 4294967295"), (["--max-concurrent-streams=-1"], "--max-concurrent-streams -1"), (["--max-concurrent-streams", "many"], "many"),
    ])
    func wrongValuesAreNamed(_ arguments: [String], _ mention: String) throws {
        let failure = try #require(throws: CommandFailure.self) { try limits(arguments) }
        #expect(failure.description.contains(mention) && !failure.description.contains("\n") && failure.status == 64, "\(failure.description)")
        let named = try #require(throws: CommandFailure.self) { try limits([], ["ETCD_GRPC_KEEPALIVE_TIMEOUT": "20"]) }
        #expect(named.description.hasPrefix("--grpc-keepalive-timeout 20: "))
    }
}
