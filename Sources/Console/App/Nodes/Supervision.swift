import CProcesses
import Foundation
import Server

/// How a console and the `quarterdeck serve` processes that it started keep together: the console writes orders to their standard input, a
/// line each, and the end of that input is the end of the process.
enum Supervision {
    /// One line of JSON. What is not in it stays as it is.
    struct Order: Codable, Sendable {
        /// From now on faults are as this says. The first order of all has one.
        var plan: FaultPlan?
        /// Stop cleanly, without handing leadership over: all nodes stop.
        var stops: Bool?

        init(plan: FaultPlan? = nil, stops: Bool? = nil) {
            self.plan = plan
            self.stops = stops
        }

        var line: [UInt8] {
            // Strings and numbers only: there is nothing that could fail.
            Array((try? JSONEncoder().encode(self)) ?? Data("{}".utf8))
        }
    }

    /// In the process that is started: binds its life to the console's. False when the console is gone already.
    static func bind(to console: pid_t) -> Bool {
        guard qd_end_with_parent(console) else { return false }
        // While the console stands still (^Z) nobody reads what we log: then it is lost, rather than the node waiting for it.
        _ = fcntl(STDERR_FILENO, F_SETFL, fcntl(STDERR_FILENO, F_GETFL) | O_NONBLOCK)
        return true
    }

    /// Reads orders on a thread of its own for as long as the process lives, and ends the process with its input.
    static func obey(_ handle: @escaping @Sendable (Order) -> Void) {
        Thread.detachNewThread {
            var reader = OrderReader()
            var buffer = [UInt8](repeating: 0, count: 16 << 10)
            while true {
                let n = read(STDIN_FILENO, &buffer, buffer.count)
                if n < 0, errno == EINTR { continue }
                // Nothing is flushed and nothing announced: for the node it is as if it had been killed.
                guard n > 0 else { _exit(137) }
                for order in reader.take(buffer[..<n]) { handle(order) }
            }
        }
    }

    /// Cuts standard input into orders.
    struct OrderReader {
        /// The plan of fifty nodes with a fault on every link takes half of it.
        static let maxBytes = 1 << 20
        private var line: [UInt8] = []
        private var isTooLong = false

        /// The orders that these bytes complete. One that is too long, or of another version that this one does not understand, changes nothing.
        mutating func take(_ bytes: some Collection<UInt8>) -> [Order] {
            var orders: [Order] = []
            for part in bytes.split(separator: 10, omittingEmptySubsequences: false).enumerated() {
                if part.offset > 0 {
                    if !isTooLong, let order = try? JSONDecoder().decode(Order.self, from: Data(line)) { orders.append(order) }
                    (line, isTooLong) = ([], false)
                }
                if line.count + part.element.count > OrderReader.maxBytes { (line, isTooLong) = ([], true) }
                if !isTooLong { line += part.element }
            }
            return orders
        }
    }
}
