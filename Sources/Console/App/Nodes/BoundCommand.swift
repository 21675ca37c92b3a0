import ArgumentParser
import CProcesses
import Foundation

/// Runs another program in this process's place, so that it is killed when the console that started it ends. Hidden: only the console uses it.
struct BoundCommand: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "bound", abstract: "Run a program that ends with its parent.", shouldDisplay: false)

    @Option var parent: Int32
    @Argument(parsing: .captureForPassthrough) var command: [String]

    func run() throws {
        guard qd_end_with_parent(parent) else { throw ExitCode(137) }
        let program = command.first == "--" ? Array(command.dropFirst()) : command
        guard let path = program.first else { throw CommandFailure(description: "bound: no program given", status: 64) }
        var arguments: [UnsafeMutablePointer<CChar>?] = program.map { strdup($0) } + [nil]
        execv(path, &arguments)
        throw CommandFailure(description: "\(path): \(String(cString: strerror(errno)).lowercased())", status: 127)
    }
}
