import Base
import Wire

/// What happened to calls, per method and status: a part of each client loop, added up for `/metrics`. Every combination
/// exists from the start, as etcd's exporters have it.
struct CallCounters: Sendable {
    private static let methods = MethodID.allCases.count
    private static let codes = StatusCode.allCases.count
    private(set) var started = [UInt64](repeating: 0, count: methods)
    private(set) var received = [UInt64](repeating: 0, count: methods)
    private(set) var sent = [UInt64](repeating: 0, count: methods)
    private var handledCounts = [UInt64](repeating: 0, count: methods * codes)
    /// Connections that are open now.
    var connections = 0

    @inline(__always) mutating func start(_ method: MethodID) { started[Int(method.rawValue)] &+= 1 }
    @inline(__always) mutating func receive(_ method: MethodID) { received[Int(method.rawValue)] &+= 1 }
    @inline(__always) mutating func send(_ method: MethodID) { sent[Int(method.rawValue)] &+= 1 }
    @inline(__always) mutating func handle(_ method: MethodID, _ code: StatusCode) {
        handledCounts[Int(method.rawValue) * CallCounters.codes + Int(code.rawValue)] &+= 1
    }
    func handled(_ method: MethodID, _ code: StatusCode) -> UInt64 {
        handledCounts[Int(method.rawValue) * CallCounters.codes + Int(code.rawValue)]
    }

    mutating func add(_ other: CallCounters) {
        for at in started.indices {
            started[at] &+= other.started[at]
            received[at] &+= other.received[at]
            sent[at] &+= other.sent[at]
        }
        for at in handledCounts.indices { handledCounts[at] &+= other.handledCounts[at] }
        connections += other.connections
    }
}
