import Base
import Client
import Testing

/// Waits for a condition, at most ten seconds.
func until(_ what: Comment, _ condition: () async throws -> Bool) async throws {
    let clock = ContinuousClock()
    let end = clock.now + .seconds(10)
    while try await !condition() {
        if clock.now > end {
            Issue.record("not within ten seconds: \(what)")
            throw CancellationError()
        }
        try await Task.sleep(for: .milliseconds(2))
    }
}

/// Awaits something that must not hang the run.
func within<T: Sendable>(_ limit: Duration = .seconds(10), _ body: @escaping @Sendable () async throws -> T) async throws -> T {
    try await withThrowingTaskGroup(of: T?.self) { group in
        group.addTask { try await body() }
        group.addTask {
            try await Task.sleep(for: limit)
            return nil
        }
        defer { group.cancelAll() }
        guard let first = try await group.next()!  else {
            Issue.record("not within \(limit)")
            throw CancellationError()
        }
        return first
    }
}

/// Settings with short waits.
func quick(_ endpoints: Endpoint...) -> ClientConfiguration {
    var configuration = ClientConfiguration(endpoints: endpoints)
    configuration.minimumBackoff = .milliseconds(2)
    configuration.maximumBackoff = .milliseconds(20)
    configuration.dialTimeout = .milliseconds(500)
    configuration.requestTimeout = .seconds(5)
    return configuration
}

/// What `body` throws.
func failure<T>(_ body: () async throws -> T) async -> (any Error)? {
    do {
        _ = try await body()
        return nil
    } catch {
        return error
    }
}

/// An endpoint at which nobody listens: the port of a listener that was just closed.
func deadEndpoint() async throws -> Endpoint {
    let server = ScriptedServer()
    try await server.start()
    let endpoint = server.endpoint
    try await server.stop()
    return endpoint
}
